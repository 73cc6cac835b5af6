package org.deixis.house;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaMethodCall;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.testing.SpiMethods;
import org.junit.jupiter.api.Test;

/** The rules of the house: who may import whom, and how large a file may grow. */
class ArchitectureTest {
  private static final JavaClasses HOUSE =
      new ClassFileImporter()
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
          .importPackages("org.deixis");

  /** From the ground up; a package may use its own kind and what stands before it. */
  private static final List<Set<String>> LAYERS =
      List.of(
          Set.of("core"),
          Set.of("backend"),
          Set.of("autograd"),
          Set.of("ops"),
          Set.of("tensor"),
          Set.of("nn", "io", "data"),
          Set.of("optim"),
          Set.of("model"),
          Set.of("infer", "export"),
          Set.of("weights"),
          Set.of("eval"),
          Set.of("train"),
          Set.of("bench"),
          Set.of("cli"));

  @Test
  void importsPointDown() {
    for (int i = 0; i < LAYERS.size(); i++) {
      String[] above =
          LAYERS.subList(i + 1, LAYERS.size()).stream()
              .flatMap(Set::stream)
              .map(p -> "org.deixis." + p + "..")
              .toArray(String[]::new);
      if (above.length == 0) {
        continue;
      }
      for (String here : LAYERS.get(i)) {
        noClasses()
            .that()
            .resideInAPackage("org.deixis." + here + "..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(above)
            .allowEmptyShould(true)
            .check(HOUSE);
      }
    }
  }

  @Test
  void everyPackageHasALayer() {
    Set<String> known = LAYERS.stream().flatMap(Set::stream).collect(Collectors.toSet());
    for (JavaClass c : HOUSE) {
      String rest = c.getPackageName().substring("org.deixis".length());
      String top = rest.isEmpty() ? "" : rest.substring(1).split("\\.")[0];
      assertTrue(known.contains(top), c.getName() + " is in a package without a layer");
    }
  }

  @Test
  void packagesMakeNoCycle() {
    slices().matching("org.deixis.(**)").should().beFreeOfCycles().check(HOUSE);
  }

  @Test
  void coreUsesTheJdkOnly() {
    classes()
        .that()
        .resideInAPackage("org.deixis.core..")
        .should()
        .onlyDependOnClassesThat()
        .resideInAnyPackage("java..", "org.deixis.core..")
        .check(HOUSE);
  }

  @Test
  void backendsKeepToThemselves() {
    slices().matching("org.deixis.backend.(*)..").should().notDependOnEachOther().check(HOUSE);
    noClasses()
        .that()
        .resideOutsideOfPackage("org.deixis.backend.cuda..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("org.bytedeco.cuda..")
        .check(HOUSE);
    noClasses()
        .that()
        .resideOutsideOfPackage("org.deixis.backend.cpu..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("org.bytedeco.dnnl..", "jdk.incubator.vector..")
        .check(HOUSE);
    noClasses()
        .that()
        .resideOutsideOfPackage("org.deixis.backend..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("org.deixis.backend.reference..", "org.deixis.backend.cpu..")
        .check(HOUSE);
  }

  @Test
  void inferenceKnowsNoTraining() {
    noClasses()
        .that()
        .resideInAPackage("org.deixis.infer..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("org.deixis.train..", "org.deixis.optim..")
        .allowEmptyShould(true)
        .check(HOUSE);
    noClasses()
        .that()
        .resideInAPackage("org.deixis.io..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("org.deixis.model..")
        .allowEmptyShould(true)
        .check(HOUSE);
  }

  /** Computes, and yet anyone may ask for it: gradients and the optimiser need it. */
  private static final Set<String> OPEN_TO_ALL = Set.of("fill", "copy", "axpby");

  @Test
  void onlyOperationsCompute() {
    DescribedPredicate<JavaMethodCall> compute =
        DescribedPredicate.describe(
            "call a backend's compute methods",
            call ->
                call.getTargetOwner().isEquivalentTo(Backend.class)
                    && !SpiMethods.NOT_KERNELS.contains(call.getName())
                    && !OPEN_TO_ALL.contains(call.getName()));
    noClasses()
        .that()
        .resideOutsideOfPackages(
            "org.deixis.ops..", "org.deixis.backend..", "org.deixis.optim..", "org.deixis.bench..")
        .should()
        .callMethodWhere(compute)
        .check(HOUSE);
  }

  @Test
  void noFileIsOver600Lines() throws IOException {
    for (String root : List.of("src", "bench", "bench-peers", "weights-tools", "cuda")) {
      if (!Files.isDirectory(Path.of(root))) {
        continue;
      }
      try (Stream<Path> files = Files.walk(Path.of(root))) {
        for (Path file :
            files.filter(f -> f.toString().matches(".*\\.(java|cu|cuh|h|py)")).toList()) {
          try (Stream<String> lines = Files.lines(file)) {
            long count = lines.count();
            assertTrue(count <= 600, file + " has " + count + " lines");
          }
        }
      }
    }
  }
}
